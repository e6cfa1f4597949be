#!/bin/sh
# Makes the certificates of the tests again, all of them, in this directory. They hold from 2020 for
# a century, so nobody should have to. The authorities' keys are thrown away: nobody can have
# anything else vouched for by them. Needs OpenSSL 3.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

cat >"$work/config" <<END
[ca]
default_ca = here
[here]
new_certs_dir = $work
database = $work/database
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
[any]
commonName = supplied
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = \${ENV::SAN}
END
: >"$work/database"
export SAN=DNS:none

# signed NAME SUBJECT OPTIONS: a new key, and a certificate for it
signed() {
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj "/CN=$2" \
    -keyout "$1.key" -out "$work/$1.csr"
  name=$1
  shift 2
  openssl ca -batch -notext -config "$work/config" -in "$work/$name.csr" -out "$name.pem" \
    -startdate 20200101000000Z -enddate 21200101000000Z "$@"
}

signed ca "an authority for tests" -selfsign -keyfile ca.key -extensions authority
signed other-ca "another authority" -selfsign -keyfile other-ca.key -extensions authority
SAN=DNS:localhost,IP:127.0.0.1,IP:::1
signed server localhost -cert ca.pem -keyfile ca.key -extensions leaf
SAN=DNS:alice
signed client alice -cert ca.pem -keyfile ca.key -extensions leaf
SAN=DNS:mallory
signed stranger mallory -cert other-ca.pem -keyfile other-ca.key -extensions leaf
openssl pkey -in server.key -aes256 -passout pass:secret -out encrypted.key
SAN=DNS:old
signed expired old -selfsign -keyfile expired.key -extensions leaf -enddate 20210101000000Z
openssl req -x509 -newkey ed25519 -noenc -subj /CN=localhost -days 36000 \
  -keyout fixed.key -out fixed.pem
rm ca.key other-ca.key
chmod 644 *.key

// Key lines and sealed lines (protocol.md, sections 3 and 4) with Node's crypto, for 512 bits.
'use strict';
const crypto = require('crypto');

const BLOCK = 64;
const PART = BLOCK - 11;

const newKeys = () => crypto.generateKeyPairSync('rsa', {modulusLength: 8 * BLOCK});

const keyLine = (publicKey) =>
  publicKey.export({type: 'pkcs1', format: 'der'}).toString('base64');

function readKeyLine(line) {
  const der = Buffer.from(line, 'base64');
  const key = crypto.createPublicKey({key: der, type: 'pkcs1', format: 'der'});
  if (keyLine(key) !== line) throw new Error('not the one line of this key');
  if (key.asymmetricKeyDetails.modulusLength !== 8 * BLOCK) throw new Error('wrong key size');
  return key;
}

function seal(privateKey, text) {
  const octets = Buffer.from(text, 'latin1');
  const blocks = [];
  for (let at = 0; at === 0 || at < octets.length; at += PART) {
    blocks.push(crypto.privateEncrypt(privateKey, octets.subarray(at, at + PART)));
  }
  return Buffer.concat(blocks).toString('base64');
}

function open(publicKey, line) {
  const sealed = Buffer.from(line, 'base64');
  if (sealed.toString('base64') !== line) throw new Error('not canonical base64');
  if (sealed.length === 0 || sealed.length % BLOCK) throw new Error('not whole blocks');
  const parts = [];
  for (let at = 0; at < sealed.length; at += BLOCK) {
    parts.push(crypto.publicDecrypt(publicKey, sealed.subarray(at, at + BLOCK)));
  }
  const last = parts.length - 1;
  if (parts.slice(0, last).some((part) => part.length !== PART)) throw new Error('not full');
  if (last > 0 && parts[last].length === 0) throw new Error('empty last block');
  return Buffer.concat(parts).toString('latin1');
}

// Calls `received` with each line that arrives on a socket, without its LF.
function onLines(socket, received) {
  let pending = '';
  socket.setEncoding('latin1');
  socket.on('data', (data) => {
    const lines = (pending + data).split('\n');
    pending = lines.pop();
    lines.forEach(received);
  });
}

module.exports = {newKeys, keyLine, readKeyLine, seal, open, onLines};

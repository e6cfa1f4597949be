// A client: node client.js PORT [CA] < TEXTS, one text a line; with a CA's certificate, through TLS.
// Sends them all at once, then prints what the server replies, one text a line, until it closes.
'use strict';
const fs = require('fs');
const net = require('net');
const tls = require('tls');
const {newKeys, keyLine, readKeyLine, seal, open, onLines} = require('./sealed.js');

const texts = fs.readFileSync(0, 'latin1').split('\n').slice(0, -1);
const {publicKey, privateKey} = newKeys();
const [port, ca] = [Number(process.argv[2]), process.argv[3]];
const socket = ca
  ? tls.connect({port, host: '127.0.0.1', servername: 'localhost', ca: fs.readFileSync(ca)})
  : net.connect(port, '127.0.0.1');
let serverKey = null;

onLines(socket, (line) => {
  if (serverKey === null) serverKey = readKeyLine(line);
  else process.stdout.write(open(serverKey, line) + '\n', 'latin1');
});
const lines = [keyLine(publicKey), ...texts.map((text) => seal(privateKey, text))];
socket.write(lines.map((line) => line + '\n').join(''));

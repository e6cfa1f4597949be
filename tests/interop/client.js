// A client: node client.js PORT < TEXTS, one text a line. Sends them all at once, then prints what
// the server replies, one text a line, until the server closes.
'use strict';
const fs = require('fs');
const net = require('net');
const {newKeys, keyLine, readKeyLine, seal, open, onLines} = require('./sealed.js');

const texts = fs.readFileSync(0, 'latin1').split('\n').slice(0, -1);
const {publicKey, privateKey} = newKeys();
const socket = net.connect(Number(process.argv[2]), '127.0.0.1');
let serverKey = null;

onLines(socket, (line) => {
  if (serverKey === null) serverKey = readKeyLine(line);
  else process.stdout.write(open(serverKey, line) + '\n', 'latin1');
});
const lines = [keyLine(publicKey), ...texts.map((text) => seal(privateKey, text))];
socket.write(lines.map((line) => line + '\n').join(''));

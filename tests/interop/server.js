// A server on a free port, which it prints: node server.js [CERTIFICATE KEY], with both through TLS.
// The commands of protocol.md, section 6.
'use strict';
const fs = require('fs');
const net = require('net');
const tls = require('tls');
const {newKeys, keyLine, readKeyLine, seal, open, onLines} = require('./sealed.js');

const {publicKey, privateKey} = newKeys();
const ids = new Set();

class Session {
  constructor() {
    this.id = null;
    this.key = null; // of a PUT whose value is awaited
    this.values = new Map();
  }

  // The reply to a text, null for none; an error for what is no message here.
  reply(text) {
    if (this.key !== null) {
      const key = this.key;
      this.key = null;
      if (text === 'GET: ERROR') return 'PUT: ERROR';
      this.values.set(key, text);
      return 'PUT: OK';
    }
    const [, verb, argument] = /^([A-Z]+)(?: ([^]+))?$/.exec(text) || [];
    if (verb === 'CONNECT' && argument) {
      if (this.id !== null || ids.has(argument)) return 'CONNECT: ERROR';
      ids.add(this.id = argument);
      return 'CONNECT: OK';
    }
    if (this.id === null) throw new Error('not connected');
    if (verb === 'PUT' && argument) {
      this.key = argument;
      return null;
    }
    if (verb === 'GET' && argument) return this.values.get(argument) ?? 'GET: ERROR';
    if (verb === 'DELETE' && argument) {
      this.values.delete(argument);
      return 'DELETE: OK';
    }
    if (text === 'DISCONNECT') {
      this.end();
      return 'DISCONNECT: OK';
    }
    throw new Error('no command');
  }

  end() {
    ids.delete(this.id);
    this.id = null;
  }
}

const [cert, key] = process.argv.slice(2).map((path) => fs.readFileSync(path));
const {createServer} = cert ? tls : net;
const server = createServer({allowHalfOpen: true, cert, key}, (socket) => {
  const session = new Session();
  let clientKey = null;
  let over = false;
  const finish = () => {
    over = true;
    session.end();
    socket.end();
  };
  onLines(socket, (line) => {
    if (over) return;
    try {
      if (clientKey === null) {
        clientKey = readKeyLine(line);
        socket.write(keyLine(publicKey) + '\n');
        return;
      }
      const reply = session.reply(open(clientKey, line));
      if (reply !== null) socket.write(seal(privateKey, reply) + '\n');
      if (reply === 'DISCONNECT: OK' && session.id === null) finish();
    } catch (error) {
      console.error(`dropped: ${error.message}`);
      finish();
    }
  });
  socket.on('end', finish);
  socket.on('error', finish);
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));

// The tutorial's signalling server: one process, one map of users. It differs from the tutorial's only in where it listens (HOST and
// PORT), and in that it logs nothing, which is in its favour.
import { WebSocketServer } from 'ws';

const wss = new WebSocketServer({ host: process.env.HOST ?? '127.0.0.1', port: Number(process.env.PORT ?? 9090) });
const users = {};

wss.on('connection', (connection) => {
  connection.on('message', (message) => {
    let data;
    try {
      data = JSON.parse(message);
    } catch {
      data = {};
    }
    switch (data.type) {
      case 'login':
        if (users[data.name]) {
          sendTo(connection, { type: 'login', success: false });
        } else {
          users[data.name] = connection;
          connection.name = data.name;
          sendTo(connection, { type: 'login', success: true });
        }
        break;
      case 'offer': {
        const conn = users[data.name];
        if (conn != null) {
          connection.otherName = data.name;
          sendTo(conn, { type: 'offer', offer: data.offer, name: connection.name });
        }
        break;
      }
      case 'answer': {
        const conn = users[data.name];
        if (conn != null) {
          connection.otherName = data.name;
          sendTo(conn, { type: 'answer', answer: data.answer });
        }
        break;
      }
      case 'candidate': {
        const conn = users[data.name];
        if (conn != null) sendTo(conn, { type: 'candidate', candidate: data.candidate });
        break;
      }
      case 'leave': {
        const conn = users[data.name];
        if (conn != null) {
          conn.otherName = null;
          sendTo(conn, { type: 'leave' });
        }
        break;
      }
      default:
        sendTo(connection, { type: 'error', message: 'Command not found: ' + data.type });
    }
  });

  connection.on('close', () => {
    if (!connection.name) return;
    delete users[connection.name];
    if (!connection.otherName) return;
    const conn = users[connection.otherName];
    if (conn != null) {
      conn.otherName = null;
      sendTo(conn, { type: 'leave' });
    }
  });

  connection.send('Hello world');
});

function sendTo(connection, message) {
  connection.send(JSON.stringify(message));
}

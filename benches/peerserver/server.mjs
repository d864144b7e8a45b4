// The original PeerServer: one process. It differs from its defaults in where it listens (HOST and PORT), and in what would end a
// benchmark: clients that send no heartbeat, and more of them than 5,000.
import { PeerServer } from 'peer';

PeerServer({
  host: process.env.HOST ?? '127.0.0.1',
  port: Number(process.env.PORT ?? 9000),
  path: '/',
  alive_timeout: 86_400_000,
  concurrent_limit: 1_000_000,
}).on('error', (error) => console.error(error));

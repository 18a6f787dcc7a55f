// A site as the hub sees it: it links, reports, and sends what its jobs print, as a test says. Node.js 20 has no client
// of WebSockets that could send a key, so the few lines of the protocol stand here.

import { randomBytes } from 'node:crypto';
import { request } from 'node:http';

export class Site {
  /** What came down. */
  heard = [];
  #socket;
  #rest = Buffer.alloc(0);
  #number = 0;
  #wakers = new Set();
  #printed = new Map();

  /** Links, says who it is, and waits until the hub has taken it. */
  static async link({ url, site_key: key }, name, pools = [], held = {}) {
    const site = new Site();
    site.#socket = await upgrade(`${url}/link`, key);
    site.#socket.on('data', (data) => site.#came(data));
    site.#socket.on('error', () => {});
    site.#send({ type: 'hello', v: 1, site: name, daemon: `daemon-${name}`, results: name, version: '0.1.0', host: `login.${name}` });
    await site.hears('welcome');
    await site.report({ site: { held: 0, running: 0, owed: 0, ...held }, pools, complete: true });
    return site;
  }

  /** Tells of jobs, or of itself, and waits until the hub has stored it. */
  async report(report) {
    this.#number += 1;
    const number = this.#number;
    this.#send({ type: 'report', number, ...report });
    await this.hears('ack', (ack) => ack.number >= number);
  }

  /** Tells of one job. */
  async job(job_id, state, more = {}) {
    await this.report({ jobs: [{ job_id, state, attempt: state === 'held' ? 0 : 1, at: new Date().toISOString(), ...more }] });
  }

  /** Sends a piece of what a job prints. */
  log(job_id, offset, text, { stream = 'stdout', attempt = 1, end = false } = {}) {
    const data = Buffer.from(text);
    this.#send({ type: 'log', job_id, attempt, stream, offset, data: data.toString('base64'), end });
    return offset + data.length;
  }

  /** Waits until something of this type has come that fits, or comes. */
  async hears(type, fits = () => true) {
    const found = () => this.heard.find((message) => message.type === type && fits(message));
    const end = Date.now() + 20_000;
    while (!found()) {
      if (Date.now() > end) throw new Error(`the site has not heard ${type}, but ${JSON.stringify(this.heard)}`);
      await new Promise((resolve) => {
        this.#wakers.add(resolve);
        setTimeout(resolve, 1_000);
      });
    }
    return found();
  }

  /** Sends this whenever somebody looks at what a job prints. */
  prints(job_id, text) {
    this.#printed.set(job_id, text);
  }

  /** The link breaks. */
  vanish() {
    this.#socket.destroy();
  }

  #send(message) {
    const data = Buffer.from(JSON.stringify(message));
    const head = data.length < 126 ? Buffer.from([0x81, 0x80 | data.length]) : Buffer.alloc(data.length < 65_536 ? 4 : 10);
    if (head.length === 4) {
      head.set([0x81, 0xfe]);
      head.writeUInt16BE(data.length, 2);
    } else if (head.length === 10) {
      head.set([0x81, 0xff]);
      head.writeBigUInt64BE(BigInt(data.length), 2);
    }
    const mask = randomBytes(4);
    for (let at = 0; at < data.length; at += 1) data[at] ^= mask[at % 4];
    this.#socket.write(Buffer.concat([head, mask, data]));
  }

  #hear(message) {
    this.heard.push(message);
    const printed = message.type === 'tail' && message.stream === 'stdout' && this.#printed.get(message.job_id);
    if (printed) this.log(message.job_id, 0, printed);
  }

  #came(data) {
    this.#rest = Buffer.concat([this.#rest, data]);
    for (;;) {
      const short = this.#rest[1] & 0x7f;
      const head = short === 127 ? 10 : short === 126 ? 4 : 2;
      if (this.#rest.length < head) return;
      const length = short === 127 ? Number(this.#rest.readBigUInt64BE(2)) : short === 126 ? this.#rest.readUInt16BE(2) : short;
      if (this.#rest.length < head + length) return;
      const body = this.#rest.subarray(head, head + length);
      if ((this.#rest[0] & 0x0f) === 1) this.#hear(JSON.parse(body.toString()));
      this.#rest = this.#rest.subarray(head + length);
      this.#wakers.forEach((wake) => wake());
      this.#wakers.clear();
    }
  }
}

function upgrade(url, key) {
  return new Promise((resolve, reject) => {
    const asked = request(url, {
      headers: {
        connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': '13',
        'sec-websocket-key': randomBytes(16).toString('base64'), 'x-site-key': key,
      },
    });
    asked.on('upgrade', (_, socket, first) => {
      socket.unshift(first);
      resolve(socket);
    });
    asked.on('response', (answer) => reject(new Error(`the hub takes no link: ${answer.statusCode}`)));
    asked.on('error', reject);
    asked.end();
  });
}

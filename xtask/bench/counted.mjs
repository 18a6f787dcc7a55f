// The compiled Worker, with a count of what Cloudflare counts: requests to the Worker, and of its object requests,
// messages of WebSockets, alarms, and rows as the cursors of its SQLite tell them. `GET /counters` shows them.
import Worker, * as built from "./index.js";

const counters = {
  workerRequests: 0,
  objectRequests: 0,
  messages: 0,
  alarms: 0,
  rowsRead: 0,
  rowsWritten: 0,
  starts: 0,
};

export default class extends Worker {
  async fetch(request) {
    if (new URL(request.url).pathname === "/counters") {
      return Response.json(counters);
    }
    counters.workerRequests += 1;
    return super.fetch(request);
  }
}

// Everything of an object as it is, but for some of its properties.
const withOthers = (object, others) =>
  new Proxy(object, {
    get(target, name) {
      if (name in others) {
        return others[name];
      }
      const value = target[name];
      return typeof value === "function" ? value.bind(target) : value;
    },
  });

export class Hub {
  #hub;
  #cursors = [];

  constructor(state, env) {
    counters.starts += 1;
    const exec = (...given) => {
      const cursor = state.storage.sql.exec(...given);
      this.#cursors.push(cursor);
      return cursor;
    };
    // A call of setAlarm is a row written.
    const setAlarm = (...given) => {
      counters.rowsWritten += 1;
      return state.storage.setAlarm(...given);
    };
    const sql = withOthers(state.storage.sql, { exec });
    const storage = withOthers(state.storage, { sql, setAlarm });
    this.#hub = new built.Hub(withOthers(state, { storage }), env);
  }

  // What a cursor has read is known when all of it was taken.
  async #counted(work) {
    try {
      return await work();
    } finally {
      for (const cursor of this.#cursors.splice(0)) {
        counters.rowsRead += cursor.rowsRead;
        counters.rowsWritten += cursor.rowsWritten;
      }
    }
  }

  fetch(request) {
    counters.objectRequests += 1;
    return this.#counted(() => this.#hub.fetch(request));
  }

  alarm() {
    counters.alarms += 1;
    return this.#counted(() => this.#hub.alarm());
  }

  webSocketMessage(socket, message) {
    counters.messages += 1;
    return this.#counted(() => this.#hub.webSocketMessage(socket, message));
  }

  webSocketClose(...given) {
    return this.#counted(() => this.#hub.webSocketClose(...given));
  }

  webSocketError(...given) {
    return this.#counted(() => this.#hub.webSocketError(...given));
  }
}

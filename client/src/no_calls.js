/** What calls do with a session. */
export class NoCalls {
  /** Whether silence is to be noticed soon. */
  get isBusy() {
    return false
  }
  /** Takes a signal, if it is part of a call. @param {any} _message @returns {boolean} */
  heard(_message) {
    return false
  }
  /** The page was asleep, or its network has changed. @param {boolean} _networkChanged */
  awake(_networkChanged) {}
  /** The session goes on over another connection: the same one, or another. @param {boolean} _resumed */
  back(_resumed) {}
  /** The session is gone. */
  orphaned() {}
  /** Signals were lost. */
  repeat() {}
  /** There are new ICE servers. */
  configured() {}
  /** @param {string} _reason @param {boolean} _local */
  stopped(_reason, _local) {}
}

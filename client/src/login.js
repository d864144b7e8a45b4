import { GIVEN_UP } from './codes.js'
import { SwitchboardError } from './errors.js'
import { deferred, sleep } from './util.js'

/** @import { Link } from './link.js' */
/** @import { Deferred } from './util.js' */

/** Milliseconds until an app is asked again that had no new token. */
const RENEW_AGAIN = 5000

/** Who we want to be. @typedef {{ name: string, established: boolean } & Deferred<any>} Identity */
/**
 * @typedef {{ transport: import('./types.js').TransportKind, error: SwitchboardError, final: boolean, retryIn?: number
 * }} LoginFailure
 */

/**
 * @typedef {object} LoginPort
 * @property {() => Link | undefined} link
 * @property {() => string | undefined} last the last signal that was heard
 * @property {(reply: any, again: boolean) => void} entered
 * @property {() => void} lost the session cannot be resumed
 * @property {(failure: LoginFailure) => void} failed
 * @property {(error: SwitchboardError, established: boolean) => void} refused
 */

/** Takes a name, and takes the session up again over each new connection. */
export class Login {
  #clock
  #token
  #port
  /** @type {Identity | undefined} */
  #identity
  /** Ends the wait for the answer. @type {((reply?: any) => void) | undefined} */
  #answered
  /** The secret that resumes the session. @type {string | undefined} */
  resume

  /**
   * @param {import('./clock.js').Clock} clock
   * @param {import('./types.js').SessionOptions['token']} token
   * @param {LoginPort} port
   */
  constructor(clock, token, port) {
    this.#clock = clock
    this.#token = token
    this.#port = port
  }

  /** The name that is wanted, or taken. */
  get name() {
    return this.#identity?.name
  }

  /** @param {string} name @returns {Promise<any>} */
  begin(name) {
    if (this.#identity) throw new SwitchboardError('already_logged_in', `Logged in as ${this.#identity.name}`)
    this.#identity = { name, established: false, ...deferred() }
    return this.#identity.promise
  }

  /** @param {unknown} reason */
  end(reason) {
    const identity = this.#identity
    this.#identity = this.resume = undefined
    identity?.reject(reason)
  }

  /** @param {any} [reply] nothing, if the connection is lost */
  answered(reply) {
    this.#answered?.(reply)
  }

  /**
   * Logs in or resumes over a link; again, while the server says that it may work later.
   * @param {Link} link
   * @param {AbortSignal} life
   */
  async enter(link, life) {
    for (;;) {
      const identity = this.#identity
      if (!identity || link !== this.#port.link()) return
      const { established } = identity
      const failed = (/** @type {unknown} */ error) => ({
        code: established ? 'no_token' : 'unauthorized',
        message: String(error),
      })
      const reply = await this.#ask(link, identity).catch(failed)
      if (!reply || link !== this.#port.link() || identity !== this.#identity) return
      if (reply.success) {
        this.resume = reply.resume
        identity.established = true
        this.#port.entered(reply, established)
        return identity.resolve(undefined)
      }
      const { code, message, retry_after_ms: retryAfter = code === 'unavailable' ? 1000 : undefined } = reply
      const error = new SwitchboardError(code, message, retryAfter)
      const again = retryAfter !== undefined && (established || code !== 'name_taken')
      const elsewhere = code === 'draining' || code === 'no_token'
      const final = !again && !elsewhere && code !== 'resume_failed'
      this.#port.failed({ transport: link.kind, error, final, retryIn: final ? undefined : (retryAfter ?? 0) })
      if (code === 'resume_failed') {
        this.resume = undefined
        this.#port.lost()
        // Another connection, after the usual wait, asks for the token again.
      } else if (elsewhere) return link.close(GIVEN_UP, code)
      else if (again) await sleep(this.#clock, retryAfter ?? 0, life)
      else {
        this.end(error)
        return this.#port.refused(error, established)
      }
    }
  }

  /** Whether there is a new token for each login. */
  get renews() {
    return typeof this.#token === 'function'
  }

  /**
   * The token ends soon: sends a new one, unless another connection logs in with one meanwhile.
   * @param {AbortSignal} life
   */
  async renew(life) {
    const link = this.#port.link()
    while (this.renews && link && link === this.#port.link()) {
      const token = await this.#newToken().catch(() => undefined)
      if (token === undefined) await sleep(this.#clock, RENEW_AGAIN, life)
      else if (link === this.#port.link()) return link.send(JSON.stringify({ type: 'token', token }))
    }
  }

  async #newToken() {
    return typeof this.#token === 'function' ? await this.#token() : this.#token
  }

  /** @param {Link} link @param {Identity} identity @returns {Promise<any>} */
  async #ask(link, { name }) {
    const token = await this.#newToken()
    // By now another connection may be there, which waits for an answer of its own.
    if (link !== this.#port.link()) return
    const resume = this.resume && { resume: this.resume, last: this.#port.last() }
    const reply = new Promise((resolve) => (this.#answered = resolve))
    link.send(JSON.stringify({ type: 'login', name, resumable: true, token, ...resume }))
    return reply
  }
}

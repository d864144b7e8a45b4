/**
 * An `EventTarget` whose types know its events, so that a misspelt name is an error.
 * @template {{ [Type in keyof Events]: Event }} Events
 */
export class Emitter extends EventTarget {
  /**
   * @template {keyof Events & string} Type
   * @param {Type} type
   * @param {((event: Events[Type]) => unknown) | { handleEvent(event: Events[Type]): unknown } | null} listener
   * @param {boolean | import('./types.js').ListenerOptions} [options]
   */
  addEventListener(type, listener, options) {
    super.addEventListener(type, /** @type {EventListener} */ (listener), options)
  }

  /**
   * @template {keyof Events & string} Type
   * @param {Type} type
   * @param {((event: Events[Type]) => unknown) | { handleEvent(event: Events[Type]): unknown } | null} listener
   * @param {boolean | import('./types.js').ListenerOptions} [options]
   */
  removeEventListener(type, listener, options) {
    super.removeEventListener(type, /** @type {EventListener} */ (listener), options)
  }

  /**
   * @internal
   * @param {keyof Events & string} type
   * @param {object} [fields]
   */
  _fire(type, fields) {
    this.dispatchEvent(Object.assign(new Event(type), fields))
  }
}

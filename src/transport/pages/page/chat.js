// Text chat over a data channel: each message is the text itself, so that other clients can join in.

import { byId } from './dom.js'

/** Ready for the chat of a call. Text that comes by a channel of another label is shown too: other clients have their own. */
export function chat(call, channel) {
  const { name } = call
  const [form, words, send] = [byId('say'), byId('words'), byId('send')]
  byId('messages').replaceChildren()
  const ready = (open) => (send.disabled = !open)
  ready(channel.readyState === 'open')
  channel.addEventListener('open', () => ready(true))
  channel.addEventListener('close', () => ready(false))
  const hear = ({ data }) => typeof data === 'string' && show(data, name)
  channel.addEventListener('message', hear)
  call.addEventListener('channel', ({ channel: other }) => other.addEventListener('message', hear))
  form.onsubmit = (event) => {
    event.preventDefault()
    const text = words.value.trim()
    if (!text || send.disabled) return
    channel.send(text)
    show(text)
    words.value = ''
    words.focus()
  }
}

function show(text, from) {
  const item = document.createElement('p')
  const who = document.createElement('span')
  who.className = 'unseen'
  who.textContent = `${from ?? 'You'}: `
  item.className = from ? '' : 'mine'
  item.append(who, text)
  const list = byId('messages')
  list.append(item)
  list.scrollTop = list.scrollHeight
}

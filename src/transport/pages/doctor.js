// The doctor's page: shows what is found while it is found, and the verdict at the end.

import { examine } from './doctor/probes.js'
import { asText, diagnose } from './doctor/verdict.js'

const byId = (id) => document.getElementById(id)
/** The steps of an examination, for the progress bar. */
const STEPS = ['page', 'whoami', 'websocket', 'sse', 'poll', 'logins', 'signals', 'ice', 'call', 'idle']
const STATES = { ok: 'well', fail: 'fails', warn: 'look here', skip: 'not tried' }
/** The longest that quiet connections may be watched, in seconds. */
const LONGEST = 600
const WEIGHTS = { broken: 'Calls fail', limited: 'Worse than it could be', note: 'Good to know' }

async function run() {
  const verdict = byId('verdict')
  verdict.dataset.overall = 'busy'
  byId('summary').textContent = 'Examining…'
  byId('progress').hidden = false
  for (const id of ['copy', 'again']) byId(id).disabled = true
  byId('causes').replaceChildren()
  byId('checks').replaceChildren()
  byId('copied').textContent = ''
  // For those who look after a proxy with longer timeouts: /doctor?watch=120
  const watch = Number(new URLSearchParams(location.search).get('watch'))
  const watched = watch > 0 ? Math.min(watch, LONGEST) * 1000 : undefined
  const facts = await examine(show, { watched })
  const result = diagnose(facts)
  verdict.dataset.overall = result.overall
  byId('summary').textContent = result.summary
  byId('busy').textContent = result.causes.length === 0 ? 'Nothing to do.' : ''
  byId('progress').hidden = true
  byId('causes').replaceChildren(...result.causes.map(causeCard))
  showChecks(result.checks)
  byId('text').value = asText(result, { when: new Date().toISOString(), where: location.origin, browser: navigator.userAgent })
  for (const id of ['copy', 'again']) byId(id).disabled = false
  // For programs that drive this page.
  window.doctor = { facts, result }
  document.body.dataset.done = 'true'
  byId('again').textContent = 'Examine again'
}

function show(facts, busy) {
  byId('busy').textContent = busy
  byId('progress').value = STEPS.filter((step) => step in facts).length / STEPS.length
  showChecks(diagnose(facts).checks)
}

function showChecks(checks) {
  byId('checks').replaceChildren(
    ...checks.map(({ title, state, said }) => {
      const item = element('li', { className: `check ${state}` })
      item.append(
        element('span', { className: 'state', textContent: STATES[state] }),
        element('span', { className: 'what', textContent: title }),
        element('span', { className: 'said', textContent: said }),
      )
      return item
    }),
  )
}

function causeCard({ code, weight, title, why, todo, whose }) {
  const card = element('article', { className: `cause card ${weight}` })
  card.dataset.code = code
  const terms = element('dl', {})
  for (const [term, words] of [
    ['Seen', why],
    ['What to do', todo],
    ['Who', whose],
  ]) {
    terms.append(element('dt', { textContent: term }), element('dd', { textContent: words }))
  }
  card.append(element('p', { className: 'weight', textContent: WEIGHTS[weight] }), element('h3', { textContent: title }), terms)
  return card
}

function element(name, properties) {
  return Object.assign(document.createElement(name), properties)
}

async function copy() {
  const text = byId('text')
  try {
    await navigator.clipboard.writeText(text.value)
  } catch {
    // No clipboard on pages that were not loaded securely.
    text.closest('details').open = true
    text.select()
    document.execCommand('copy')
  }
  byId('copied').textContent = 'Copied.'
}

byId('copy').addEventListener('click', copy)
byId('again').addEventListener('click', () => {
  delete document.body.dataset.done
  run()
})

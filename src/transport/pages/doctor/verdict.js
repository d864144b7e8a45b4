// What the doctor makes of what it has seen: facts in, verdict out. No DOM, no network, no clock, so that each judgement can be tested.

import { ofTheDoors, ofTheIdle, ofThePage } from './doors.js'
import { ofTheIce } from './relays.js'
import { checks } from './seen.js'
import { ofTheCall, ofTheLogins, ofTheNodes } from './users.js'

/**
 * @typedef {object} Cause
 * @property {string} code    for programs and tests
 * @property {"broken"|"limited"|"note"} weight  calls fail, calls work worse than they could, or good to know
 * @property {string} title   what is wrong
 * @property {string} why     how that shows
 * @property {string} todo    what to do, and which setting
 * @property {string} whose   who can mend it
 *
 * @typedef {object} Check
 * @property {string} id
 * @property {string} title
 * @property {"ok"|"fail"|"warn"|"skip"} state
 * @property {string} said    what was seen
 *
 * @typedef {object} Verdict
 * @property {"well"|"limited"|"broken"} overall
 * @property {string} summary
 * @property {Cause[]} causes
 * @property {Check[]} checks
 */

/**
 * Names the causes behind the facts, the gravest first, and what was seen of each part.
 *
 * @param {object} facts as `probes.js` gathers them; a part that was not tried is missing
 * @returns {Verdict}
 */
export function diagnose(facts) {
  const causes = [
    ...ofThePage(facts),
    ...ofTheDoors(facts),
    ...ofTheLogins(facts),
    ...ofTheNodes(facts),
    ...ofTheIdle(facts),
    ...ofTheIce(facts),
    ...ofTheCall(facts),
  ]
  const order = { broken: 0, limited: 1, note: 2 }
  causes.sort((one, other) => order[one.weight] - order[other.weight])
  const overall = causes.some((cause) => cause.weight === 'broken')
    ? 'broken'
    : causes.some((cause) => cause.weight === 'limited')
      ? 'limited'
      : 'well'
  return { overall, summary: summary(overall, causes), causes, checks: checks(facts) }
}

function summary(overall, causes) {
  if (overall === 'well') return 'All well. Calls should work from here.'
  const first = causes[0].title
  return overall === 'broken' ? `Calls will not work from here: ${lower(first)}` : `Calls work, but not as well as they could: ${lower(first)}`
}

/** The verdict as plain text, to be pasted into a mail or an issue. No names, no addresses of users, no credentials. */
export function asText({ overall, summary, causes, checks }, { when, where, browser } = {}) {
  const mark = { ok: 'ok  ', fail: 'FAIL', warn: 'WARN', skip: '-   ' }
  const lines = [`Switchboard doctor: ${overall === 'well' ? 'all well' : overall}`]
  if (where) lines.push(`at ${where}${when ? `, ${when}` : ''}`)
  if (browser) lines.push(browser)
  lines.push('', summary, '')
  for (const cause of causes) {
    lines.push(`* ${cause.title} [${cause.code}]`, `  Seen: ${cause.why}`, `  To do: ${cause.todo}`, `  By: ${cause.whose}`, '')
  }
  for (const check of checks) lines.push(`${mark[check.state]}  ${check.title}: ${check.said}`)
  return `${lines.join('\n')}\n`
}

const lower = (text) => (/^[A-Z][a-z]/.test(text) && !/^(STUN|TURN|SSE|WebSocket)/.test(text) ? text[0].toLowerCase() + text.slice(1) : text)

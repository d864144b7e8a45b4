// A page that shows a trace as Jaeger's timeline does. Jaeger as a Go module comes without its own pages.

import { rowsOf } from './jaeger.mjs'

const COLORS = ['#0f766e', '#c2410c', '#6d28d9', '#1d4ed8']

const millis = (micros) => `${(micros / 1000).toFixed(micros < 10_000 ? 2 : 0)} ms`

/** HTML with a row for each span: whose it is, its name, and a bar. */
export function pictureOf(trace) {
  const rows = rowsOf(trace)
  const from = Math.min(...rows.map(({ start }) => start))
  const whole = Math.max(...rows.map(({ end }) => end)) - from
  const nodes = [...new Set(rows.map(({ node }) => node))].sort()
  const share = (micros) => `${(100 * micros) / whole}%`
  const marks = [0, 0.25, 0.5, 0.75, 1].map((part) => `<span>${millis(whole * part)}</span>`)
  const row = ({ name, node, depth, start, end }) => {
    const color = COLORS[nodes.indexOf(node) % COLORS.length]
    // Jaeger, too, writes the duration where there is room.
    const side = start - from > whole * 0.8 ? `right:${share(whole - (start - from))}` : `left:calc(${share(end - from)} + 3px)`
    const where = end - start > whole * 0.5 ? `right:calc(${share(from + whole - end)} + 6px);color:#fff` : side
    return `<tr><td style="border-left:4px solid ${color};padding-left:${8 + depth * 14}px"><b>${node.split('.')[0]}</b> ${name}</td>
      <td><i style="left:${share(start - from)};width:${share(end - start)};background:${color}"></i>
      <u style="${where}">${millis(end - start)}</u></td></tr>`
  }
  return `<!doctype html><meta charset="utf-8"><style>
    body { margin: 0; font: 13px/1.2 system-ui, sans-serif; color: #222; background: #fff }
    h1 { font-size: 15px; margin: 10px 12px } h1 small { font-weight: 400; color: #666 }
    table { border-collapse: collapse; width: 100%; table-layout: fixed } tr:nth-child(odd) { background: #f6f7f8 }
    td { padding: 3px 0; white-space: nowrap } td:first-child { width: 240px; box-sizing: border-box } td + td { position: relative; border-left: 1px solid #ddd }
    div { display: flex; justify-content: space-between; margin-left: 240px; padding: 3px 4px; color: #666; border-bottom: 1px solid #ddd }
    i { position: absolute; top: 4px; bottom: 4px; min-width: 2px; border-radius: 2px }
    u { position: absolute; top: 5px; text-decoration: none; font-size: 11px; color: #555 }
  </style><h1>switchboard: ${rows[0].name} <small>${millis(whole)} · ${rows.length} spans · nodes ${nodes.map((node) => node.split('.')[0]).join(' and ')}</small></h1>
  <div>${marks.join('')}</div><table>${rows.map(row).join('')}</table>`
}

// The words that verdicts share.

/** Who can mend it. */
export const OPERATOR = 'whoever runs this server'
export const PROXY = 'whoever runs the proxy or load balancer in front of the server'
export const NETWORK = 'whoever runs the network that you are in'
export const YOU = 'you'

export const ms = (number) => `${number < 10 ? Number(number).toFixed(1) : Math.round(number)} ms`

/** Some milliseconds, as people say it. */
export function seconds(number) {
  const value = number / 1000
  if (value >= 5400) return `${Math.round(value / 3600)} h`
  if (value >= 120) return `${Math.round(value / 60)} min`
  return `${value < 10 ? Math.round(value * 10) / 10 : Math.round(value)} s`
}

export function list(things) {
  const known = things.filter(Boolean)
  if (known.length === 0) return 'none'
  if (known.length === 1) return known[0]
  return `${known.slice(0, -1).join(', ')} and ${known.at(-1)}`
}

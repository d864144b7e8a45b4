// The few things that every part of the page does with the document.

export const byId = (id) => document.getElementById(id)

/** A copy of what a `<template>` holds. */
export const made = (template) => byId(template).content.firstElementChild.cloneNode(true)

/** Gives a button another picture and other words. */
export function dress(button, icon, words) {
  button.querySelector('use').setAttribute('href', `#i-${icon}`)
  button.querySelector('span').textContent = words
}

/** Says something that passes by itself; screen readers read it out. */
export function notify(words) {
  const notice = document.createElement('p')
  notice.textContent = words
  byId('notices').append(notice)
  setTimeout(() => notice.remove(), 7000)
}

/** What this browser keeps, if it keeps anything. */
export const kept = {
  get(key, otherwise, store = localStorage) {
    try {
      return JSON.parse(store.getItem(`switchboard:${key}`)) ?? otherwise
    } catch {
      return otherwise
    }
  },
  set(key, value, store = localStorage) {
    try {
      store.setItem(`switchboard:${key}`, JSON.stringify(value))
    } catch {
      // Private windows keep nothing.
    }
  },
}

/** The letter that stands for somebody without a picture. */
export const initial = (name) => [...name][0]?.toUpperCase() ?? '?'

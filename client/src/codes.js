/** Close codes of ours. The session stays: the link is replaced, the page is frozen, the page is loaded again. */
export const GIVEN_UP = 4900
export const FROZEN = 4901
export const RELOADED = 4902

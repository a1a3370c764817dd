/** How the guard's report begins. */
export const LEFT_OPEN = 'LEFT OPEN';

/**
 * Whether a time that was stored is less than `withinMs` milliseconds ago, or ahead: clocks differ by a little. One further
 * ahead is some clock's mistake, or a hand's, and proves nothing: to wait for it would be to let a policy lapse.
 *
 * @param then epoch milliseconds, as `now`.
 */
export function isLately(then: number, now: number, withinMs: number): boolean {
  return Math.abs(now - then) < withinMs;
}

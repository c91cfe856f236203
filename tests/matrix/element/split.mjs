/** What each of `people` pays of a bill in cents, with a tip in percent. */
export function split(cents, tip, people) {
  const total = Math.round(cents * (1 + tip / 100));
  return Array(people).fill(Math.round(total / people));
}

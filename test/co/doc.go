// Package co holds the tests of what container orchestrators see of a driver: the
// codes of each failure (docs/codes.md), and replays of their components against
// slow and failing storage.
//
// A replay is a small state machine that does what the component does: what it
// calls, with which time-outs and pauses, after which codes it repeats a call, gives
// up, or forgets. Which facts it repeats, and from which source they were read, is
// said beside it; no code was taken over. At the end the storage must hold what the
// orchestrator believes that it holds, and nothing that it has forgotten.
//
// Time is that of a synctest bubble with a listener in memory, so that the time-outs
// are the real ones and take no time; what needs a kernel runs over a Unix socket.
// No test looks at elapsed time.
package co

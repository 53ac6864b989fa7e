// Package model has no code: its test drives a whole driver, with package
// backends/mem as storage and the node engine over the kernel in memory, by random
// calls of several clients at once, and checks the history of what happened against
// what csikit promises.
//
// Everything runs in a bubble of package testing/synctest, gRPC over pipes
// included: hours pass in milliseconds, times are exact, and what fails can be run
// again. CONTRIBUTING.md says how.
package model

// Package suite has the checks of package sanity, by subject. They are written from
// the clauses of the spec, ask for what those say and no more, and work with any
// driver: each makes what it needs, by names that nobody has, and takes it back.
package suite

import (
	"slices"

	"github.com/csikit/csikit/sanity/internal/check"
)

// All are the checks in the order in which they are run.
func All() []check.Check {
	return slices.Concat(
		capabilityChecks(), errorChecks(), missingFieldChecks(), repeatChecks(), changedChecks(), sizeChecks(), limitChecks(), copyChecks(),
		modeChecks(), nameChecks(), listChecks(), topologyChecks(), groupChecks(), hostChecks(), processChecks(), coChecks(), kubeletChecks(), podChecks(), sidecarChecks(), classChecks(), concurrencyChecks(), modelChecks(), restartChecks(),
	)
}

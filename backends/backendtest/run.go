package backendtest

import (
	"testing"
)

// check is one subtest.
type check struct {
	name  string
	holds string // the words of the contract that it holds the backend to
	needs string // an optional interface, or Controller or Node; several are separated by a space
	run   func(*T)
}

// checks are all of them.
func checks() []check {
	var all []check
	for _, list := range [][]check{
		volumeChecks, nameChecks, sizeChecks, refusalChecks, concurrencyChecks,
		expandChecks, modifyChecks, attachChecks, listChecks,
		snapshotChecks, contentChecks, copyChecks, groupChecks, blockChecks, healthChecks, nodeChecks, ephemeralChecks,
		operationChecks(),
	} {
		all = append(all, list...)
	}
	return all
}

// Run holds a backend to the contract.
func Run(t *testing.T, cfg Config) {
	t.Helper()
	if err := cfg.check(); err != nil {
		t.Fatal(err)
	}
	for _, c := range checks() {
		t.Run(c.name, func(t *testing.T) { c.on(t, &cfg) })
	}
}

// on runs the check on a new backend.
func (c *check) on(tb testing.TB, cfg *Config) {
	tb.Helper()
	tb.Logf("contract: %s", c.holds)
	t := &T{TB: tb, cfg: cfg}
	t.use(cfg.New(tb))
	t.need(c.needs)
	tb.Cleanup(t.end)
	t.recover()
	c.run(t)
}

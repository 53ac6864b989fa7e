// Package mountertest is the node engine over a kernel in memory, for tests that
// have no root, on any system.
//
//	e := mountertest.New(t, node, nil)
//	err := e.Stage(ctx, mounter.StageRequest{...})
//	mounts := e.Kernel.Mounts()
//
// The engine is the real one, records and all. [Kernel] keeps the mount table,
// the devices and what is on them; it can be told to fail, and it logs what is
// done to it. Directories are real: use paths below t.TempDir(). What is written
// through one of its mounts does not show at another.
package mountertest

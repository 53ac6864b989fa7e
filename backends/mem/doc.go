// Package mem is a storage system in memory, with every ability that package
// backends knows. It is the reference for the contract, and the double for tests
// of whatever stands on one: a driver, a wrapper, a CO.
//
//	store := mem.NewStore(&mem.StoreOptions{Dir: t.TempDir()})
//	b, err := mem.New(&mem.Options{Store: store, Node: "node-1"})
//	d, err := csidriver.New(csidriver.Config{
//		Name: "mem.example.com", Traits: b.Traits(), Controller: b, Node: b,
//	}, options)
//
// # Store and Backend
//
// A [Store] is the storage: volumes, snapshots, what is attached and open. A
// [Backend] is one process of a driver that uses it, and holds nothing that
// matters. Several on one Store are the nodes and controllers of a cluster;
// another New on the same Store is the driver after a restart.
//
// # What a volume is
//
// With StoreOptions.Dir a volume is a directory below it, which any node binds:
// the real engine serves it without devices. Snapshots and clones copy its
// files. With StoreOptions.Devices a node gets a device that does not exist, for
// the kernel in memory of package mountertest. Either way a volume also has
// blocks, which [Store.WriteAt] and [Store.ReadAt] reach: those are what
// ChangedBlocks compares.
//
// # Faults
//
// [Backend.Inject] makes any method fail, hang, panic, stop halfway, lose its reply
// or answer nonsense; [Options.Without] takes abilities away; Store.Hold keeps
// snapshots from getting ready, [Store.Reboot] closes what is open on a node,
// [Store.SetHealth] and [Store.SetStorageHealth] make things ill.
//
// # When not to use it
//
// For anything that is to be kept.
package mem

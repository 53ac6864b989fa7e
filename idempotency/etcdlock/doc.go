// Package etcdlock is an idempotency.Locker and SharedLocker over etcd: the keys of
// the operations of a driver hold across its replicas.
//
//	client, err := clientv3.New(clientv3.Config{
//		Endpoints: endpoints, TLS: tls,
//		// So that a member that does not answer is left for another one in time.
//		DialKeepAliveTime: 2 * time.Second, DialKeepAliveTimeout: time.Second,
//	})
//	...
//	locker := etcdlock.New(client, &etcdlock.Options{Prefix: "/my.driver/locks/"})
//	defer locker.Close()
//	table := idempotency.NewTable(&idempotency.Options{Locker: locker})
//
// A process has one etcd lease, made when the first lock is wanted, and each lock
// is a key with that lease. Who waits for a lock waits for the key before his own,
// so that locks are given in the order in which they were asked for, and the
// fencing token is the revision at which the key was made. Who wants to share it
// waits for the last key before his own that is of an exclusive lock.
//
// The process counts its lease as lost when it has not been renewed for two thirds
// of Options.TTL, counted from the moment at which the last renewal that
// succeeded was *sent*. Etcd counts from a later moment and to the end, so that the
// last third is left for the operations to end in before anybody else gets their
// locks. That holds for clocks that run: a virtual machine that is paused and
// resumed, or a backend that does not heed its context, is kept out by storage that
// compares fencing tokens, and by nothing else.
//
// Etcd that restarts or changes its leader within that time is waited for and
// nothing is lost.
//
// The package is a module of its own, so that only who wants it has etcd's client
// in his driver. It imports nothing of csikit.
package etcdlock

// Package replicas tests controllers of csidriver that are replicas of each other,
// with their locks in a real etcd and one storage behind them.
//
// It is a module of its own, and has a workspace (go.work), because csidriver and
// etcdlock are in modules that do not know each other: neither could name a version
// of the other that is published, and a replace would not hold for who imports
// them. Nothing imports this one.
package replicas

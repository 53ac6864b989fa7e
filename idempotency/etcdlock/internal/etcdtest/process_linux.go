package etcdtest

import "syscall"

// dieWithTest ends a process also when the test is killed or panics.
func dieWithTest() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

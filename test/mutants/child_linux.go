package mutants

import "syscall"

// childAttr: what a mutant starts ends with the driver at the latest.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

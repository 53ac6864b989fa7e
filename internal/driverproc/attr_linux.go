package driverproc

import "syscall"

// childAttr: a signal for the group of the terminal does not reach the driver,
// and it does not outlive its parent.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

package kubernetes

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// restartDriver: its process is killed while volumes are made, staged and deleted.
func restartDriver(s *space) {
	s.claim("held", xfs, xfsSize)
	s.pod("holder", "held")
	s.ready("holder")
	s.sh("holder", "echo one > /data/f && sync")
	var pods []string
	for i := range 6 {
		n := strconv.Itoa(i)
		s.claim("c"+n, "immediate", xfsSize)
		s.pod("p"+n, "c"+n)
		pods = append(pods, "p"+n)
	}
	restarts := s.containers()
	n := len(mains("/driver"))
	for range 2 { // kubelet waits 10 s, then 20 s, before it starts the driver again
		eventually(s.T, "the driver runs", func() error {
			if len(mains("/driver")) < n {
				return errors.New("it does not")
			}
			return nil
		})
		time.Sleep(time.Second) // so that it has begun something
		kill(s, "/driver")
	}
	s.ready(pods...)
	s.want(s.sh("holder", "cat /data/f; echo two > /data/g; cat /data/g"), "one\ntwo")
	s.has(7, "each claim has one volume")
	kubectl(s.T, append([]string{"-n", s.ns, "delete", "pod", "--timeout=150s"}, pods[:3]...)...)
	kubectl(s.T, "-n", s.ns, "delete", "pvc", "c0", "c1", "c2", "--wait=false")
	kubectl(s.T, append([]string{"-n", s.ns, "delete", "pod", "--wait=false"}, pods[3:]...)...)
	kill(s, "/driver")
	s.d.waitReady(s.T)
	s.restarted(restarts, "driver", 3)
	s.has(4, "the volumes of claims that are deleted are")
	for _, p := range pods {
		gone(s.T, "-n", s.ns, "pod", p)
	}
	s.want(s.restarts("holder"), "0")
	s.want(s.sh("holder", "cat /data/f /data/g"), "one\ntwo")
}

// kill kills the processes whose program is called so, and waits until they have ended.
// One that is away is waited for: a sidecar ends by itself when it has something to ask
// and finds that the driver was restarted since it asked last.
func kill(s *space, program string) {
	s.Helper()
	var killed []int
	eventually(s.T, program+" runs, and is killed", func() error {
		for _, pid := range processes(program) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err == nil {
				killed = append(killed, pid)
			}
		}
		if len(killed) == 0 {
			return errors.New("it does not run")
		}
		return nil
	})
	eventually(s.T, program+" ends", func() error {
		for _, pid := range processes(program) {
			if slices.Contains(killed, pid) {
				return fmt.Errorf("%d is there", pid)
			}
		}
		return nil
	})
}

// processes are those of this namespace whose argv[0] is program.
func processes(program string) []int {
	var list []int
	dirs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range dirs {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		argv0, _, _ := strings.Cut(string(b), "\x00")
		if argv0 == program || filepath.Base(argv0) == program {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f))) // digits
			list = append(list, pid)
		}
	}
	return list
}

// mains are processes that no other one of that program has started: a command that is
// about to be executed still has the name of who starts it.
func mains(program string) []int {
	all := processes(program)
	return slices.DeleteFunc(slices.Clone(all), func(pid int) bool { return slices.Contains(all, parent(pid)) })
}

// parent is 0 when the process has ended.
func parent(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)) // it has ended
	_, rest, _ := strings.Cut(string(b), ") ")
	var state string
	var ppid int
	_, _ = fmt.Sscan(rest, &state, &ppid)
	return ppid
}

// restartKubelet: what is mounted stays; volumes of pods that went meanwhile are
// given back.
func restartKubelet(s *space) {
	for _, n := range []string{"a", "b"} {
		s.claim(n, xfs, xfsSize)
		s.pod("p"+n, n)
	}
	s.ready("pa", "pb")
	s.sh("pa", "echo one > /data/f && sync")
	start := stopKubelet(s)
	kubectl(s.T, "-n", s.ns, "delete", "pod", "pb", "--force", "--grace-period=0")
	start()
	s.ready("pa")
	s.want(s.sh("pa", "cat /data/f; echo two > /data/g; cat /data/g"), "one\ntwo")
	s.want(s.restarts("pa"), "0")
	s.claim("c", xfs, xfsSize)
	s.pod("pc", "c")
	s.ready("pc")
	pv := s.volume("b")
	eventually(s.T, "the volume of the pod that went is unmounted", func() error { return unmounted(pv) })
}

// registrationRemoved: the driver puts its socket back, and kubelet has it again.
func registrationRemoved(s *space) {
	socket := "/var/lib/kubelet/plugins_registry/" + s.d.driver.name + "-reg.sock"
	registered := func() int { return strings.Count(s.d.log(-1), "registered with kubelet") }
	before := registered()
	if err := os.Remove(socket); err != nil {
		s.Fatal(err)
	}
	eventually(s.T, "the driver registers again", func() error {
		if _, err := os.Lstat(socket); err != nil {
			return err
		}
		if registered() <= before {
			return errors.New("kubelet has not answered")
		}
		return nil
	})
	s.d.waitReady(s.T)
	s.claim("a", xfs, xfsSize)
	s.pod("p", "a")
	s.ready("p")
}

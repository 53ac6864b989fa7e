// Package crash kills the example driver loopfile, a real process with real
// mounts and loop devices, in the middle of every RPC: at every fault point that
// the RPC reaches (internal/faultpoint), and at every system call of it that
// changes something (strace -e inject). Then it starts the driver again, repeats
// the call as a CO does, or gives up and undoes, and compares what is there with
// what an undisturbed driver leaves: data, mounts, loop devices, files, records,
// descriptors.
//
// "make crash" runs all of it and prints the table; "make test" a sample. How to
// read the table, and how to repeat one case: docs/crash.md.
package crash

// Package faultpoint names the places at which a process may be killed by a
// test: where one step that changes something has ended and the next has not
// begun. A place is one line,
//
//	faultpoint.Reach("mounter.stage.mounted")
//
// with a name of its own, a literal.
//
// In an ordinary build Reach is empty and inlined: a driver carries neither the
// names nor any state. With the build tag csikit_faults it does what the
// environment says:
//
//   - CSIKIT_FAULT=name:n kills the process (SIGKILL) where it reaches the name for
//     the n-th time; the name * is any.
//   - CSIKIT_FAULT=@file reads name:n from the file, at each reaching; what was
//     reached before the file said so does not count. A missing or empty file
//     kills nobody.
//   - CSIKIT_FAULT_LOG=file has each reached name appended to the file, a line each.
//   - CSIKIT_FAULT_THREAD=1 keeps a goroutine that reached a name on its thread until
//     it ends. strace counts calls for each thread apart: so the N-th call of an
//     operation is the same one each time.
//
// test/crash finds the names that an RPC reaches by itself and kills a driver at
// each; a name that it never reaches fails it.
package faultpoint

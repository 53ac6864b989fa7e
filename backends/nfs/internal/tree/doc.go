// Package tree works on directory trees to which others write at the same time, and
// perhaps in order to lead astray whoever copies or removes them.
//
// Every path is opened with openat2(2), beneath a directory that is open, through no
// symbolic link and into no other mount; what has been opened stays what it is,
// wherever it is moved meanwhile. It needs Linux 5.6.
package tree

// Package e2e drives the built example drivers as a CO does, over their sockets
// and on real disks, and kills them.
package e2e

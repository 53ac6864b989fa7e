// Package adopt holds two drivers that are no csikit drivers and use parts of it:
// one with a csi.NodeServer of its own over package mounter alone, and one of the
// old kind, written against k8s.io/mount-utils, over mounter/kmount. Its tests take
// both through the life of a volume, by gRPC and on real devices. They are also what
// to read before adopting either package.
package adopt

//go:build !linux

package mutants

func detachLoops(string) bool { return false }

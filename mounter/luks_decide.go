package mounter

import (
	"slices"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/blockdev"
)

// decideLUKS is the one place that can allow a luksFormat, with the evidence of
// the device and the header that was found on it. What is inside is decide's.
func (e evidence) decideLUKS(h LUKSHeader) (format bool, err error) {
	switch c := e.Content; {
	case isLUKS(c):
		return e.existingLUKS(h)
	case c.State == blockdev.Blank:
		return e.formatLUKS("blank")
	case c.State == blockdev.Unknown && e.mayOverwrite():
		return e.formatLUKS("data without a signature")
	case c.State == blockdev.Filesystem:
		return false, e.refuse("the volume is to be encrypted, and this is not: a file system is never encrypted in its place")
	}
	if _, err = decide(e); err == nil {
		err = e.refuse("it is not encrypted")
	}
	return false, err
}

// existingLUKS decides about a header that is there: it is opened, save what a
// luksFormat that was cut short left, and that nothing can open.
func (e evidence) existingLUKS(h LUKSHeader) (format bool, err error) {
	switch {
	case !h.Valid && e.mayOverwrite(), h.Valid && h.Mark == LUKSNew && len(h.Slots) == 0:
		return e.formatLUKS("a luksFormat that did not end")
	case !h.Valid:
		return false, e.refuse("its LUKS header is damaged; cryptsetup repair may help")
	case len(h.Slots) == 0:
		return false, e.refuse("its LUKS header has no key left, so that nothing opens it")
	case e.Backend == backends.FormatNever && e.done() == "" && !e.recordStarted():
		return false, e.refuse("the backend says that it was never formatted, and it is encrypted: left by somebody else")
	}
	return false, nil
}

// luksRoom is what a new header takes, and the least that is of use behind it.
const (
	luksRoom  = 16 << 20
	luksInner = 1 << 20
)

func (e evidence) formatLUKS(what string) (bool, error) {
	switch {
	case e.done() != "":
		return false, e.refuse("it was formatted with %s before, and now it reads as %s: it is never formatted again", e.done(), what)
	case e.ReadOnly:
		return false, e.refuse("it reads as %s, and a volume that is used read-only is not formatted", what)
	case e.Size > 0 && e.Size < luksRoom+luksInner:
		return false, e.refuse("it has %d bytes, and encryption takes %d", e.Size, luksRoom)
	}
	return true, nil
}

// inside turns the evidence about a device into that about what is inside of it.
// A luksFormat leaves noise there, of which only the mark in the header tells
// whether it is worth anything; that mark is as durable as the device.
func (c *encrypted) inside(e evidence) evidence {
	switch {
	case c == nil || e.Backend == backends.FormatDone:
	case c.header.Mark == LUKSNew:
		if e.Backend != backends.FormatStarted {
			e.Backend, e.BackendFSType = backends.FormatStarted, ""
		}
	case c.header.Mark == LUKSUsed && e.done() == "":
		e.Backend, e.BackendFSType = backends.FormatDone, ""
	case c.header.Mark == "":
		// Somebody else's header: nothing behind it was ever ours.
		e.Backend = backends.FormatUnknown
		if e.Record != nil && e.Record.State == formatStarted {
			e.Record = nil
		}
	}
	return e
}

// ciphers and pbkdfs are what a backend may ask for.
var (
	ciphers = []string{
		"", "aes-xts-plain64", "serpent-xts-plain64", "twofish-xts-plain64",
		"xchacha12,aes-adiantum-plain64", "xchacha20,aes-adiantum-plain64",
	}
	pbkdfs = []string{"", "argon2id", "pbkdf2"}
)

// checkEncryption refuses what is not known before anything is done.
func checkEncryption(e *backends.Encryption) error {
	if e == nil {
		return nil
	}
	least := 4
	if e.PBKDF == "pbkdf2" {
		least = 1000
	}
	switch {
	case e.Key.Reveal() == "":
		return invalid("encryption without a key")
	case len(e.Key.Reveal()) > maxKey || len(e.PreviousKey.Reveal()) > maxKey:
		return invalid("a key of more than %d bytes", maxKey)
	case !slices.Contains(ciphers, e.Cipher):
		return invalid("cipher %q is none of %q", e.Cipher, ciphers[1:])
	case !slices.Contains([]int{0, 256, 512}, e.KeyBits):
		return invalid("%d key bits: 256 or 512", e.KeyBits)
	case !slices.Contains([]int{0, 512, 4096}, e.SectorSize):
		return invalid("sector size %d: 512 or 4096", e.SectorSize)
	case !slices.Contains(pbkdfs, e.PBKDF):
		return invalid("PBKDF %q is none of %q", e.PBKDF, pbkdfs[1:])
	case e.Memory != 0 && (e.Memory < 32 || e.Memory > 4<<20 || e.PBKDF == "pbkdf2"):
		return invalid("%d KiB of memory for the PBKDF: 32 to 4194304, and none for pbkdf2", e.Memory)
	case e.Iterations != 0 && (e.Iterations < least || e.Iterations > 1<<31-1):
		return invalid("%d PBKDF iterations: at least %d", e.Iterations, least)
	}
	return nil
}

// maxKey is what passes for a secret in the scrubbing of messages, too
// (package command).
const maxKey = 8 << 10

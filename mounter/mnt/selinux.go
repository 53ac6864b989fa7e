package mnt

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/csikit/csikit/backends"
)

// selinuxKeys are the options that label a file system. mount(8) drops them where
// there is no SELinux; here they are refused: a label that was asked for keeps pods
// apart, and nobody asks for one where it means nothing (kubelet asks the node).
var selinuxKeys = []string{"context", "fscontext", "defcontext", "rootcontext"}

// selinuxOption is the first option in o that labels, "" when there is none.
func (o Options) selinuxOption() string {
	for _, w := range splitLoose(o.Data) {
		if key, _, valued := strings.Cut(w, "="); valued && slices.Contains(selinuxKeys, key) {
			return key
		}
	}
	return ""
}

// withoutSELinux says what the kernel does not: its refusal looks like that of any
// other option.
func withoutSELinux(o Options, err error) error {
	key := o.selinuxOption()
	if key == "" || !errors.Is(err, syscall.EINVAL) || hasSELinux() {
		return err
	}
	return fmt.Errorf("%w: mount option %q needs SELinux, which this kernel does not have, or has turned off: %s", backends.ErrPrecondition, key, err.Error())
}

// Context is the value of the option "context" in options as a CO gives them or as
// [Info].Super has them; "" when there is none.
func Context(options []string) string {
	for _, o := range options {
		for _, w := range splitLoose(o) {
			if v, ok := strings.CutPrefix(w, "context="); ok {
				return unquote(v)
			}
		}
	}
	return ""
}

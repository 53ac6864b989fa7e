package kmount

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"k8s.io/mount-utils"

	"github.com/csikit/csikit/backends"
)

func TestScrub(t *testing.T) {
	inner := &formatError{fmt.Errorf("%w: option %q and hunter2,tail of user=me,password=hunter2", backends.ErrInvalid, "bareword"), mount.MountError{Type: mount.FormatFailed}}
	err := scrub(inner, []string{"bareword", "user=me,password=hunter2,tail", "ro"})
	for _, secret := range []string{"bareword", "hunter2"} {
		if strings.Contains(fmt.Sprintf("%v %+v %q", err, err, err), secret) {
			t.Errorf("%q in %v", secret, err)
		}
	}
	var m mount.MountError
	if !errors.Is(err, backends.ErrInvalid) || !errors.As(err, &m) || m.Type != mount.FormatFailed {
		t.Error(err)
	}
	if err := errors.New("read-only"); scrub(err, []string{"ro"}) != err || scrub(nil, []string{"x"}) != nil {
		t.Error("changed")
	}
}

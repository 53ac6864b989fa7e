package kmount

import (
	"errors"
	"slices"
	"strings"

	"github.com/csikit/csikit/mounter/mnt"
)

// scrubbed is an error without the words that its caller calls sensitive. What it
// is, and not what it says, can be asked with errors.Is and errors.As.
type scrubbed struct {
	err  error
	text string
}

func (e *scrubbed) Error() string        { return e.text }
func (e *scrubbed) Is(target error) bool { return errors.Is(e.err, target) }
func (e *scrubbed) As(target any) bool   { return errors.As(e.err, target) }

// scrub takes sensitive options out of an error. mounter/mnt leaves out values; a
// word without one, and the name of an option, it prints.
func scrub(err error, sensitive []string) error {
	if err == nil || len(sensitive) == 0 {
		return err
	}
	words := slices.Clone(sensitive)
	if split, bad := mnt.SplitOptions(sensitive); bad == nil {
		words = append(words, split...)
	}
	for _, w := range slices.Clone(words) {
		key, value, _ := strings.Cut(w, "=")
		words = append(words, value)
		if _, known := cifsFile.keys[key]; !known {
			words = append(words, key)
		}
	}
	// The longest first: what is left of a word must not stay.
	slices.SortFunc(words, func(a, b string) int { return len(b) - len(a) })
	text := err.Error()
	for _, w := range words {
		const short = 3 // ro, rw: they would match anything
		if len(w) >= short {
			text = strings.ReplaceAll(text, w, "***")
		}
	}
	if text == err.Error() {
		return err
	}
	return &scrubbed{err, text}
}

package manifests

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// object is a mapping whose order is kept, for people read it. A field without a
// value is left out; one with the key "#" is a comment.
type object []field

type field struct {
	key   string
	value any // string, bool, int, object, list, []string
}

type list []any

// only gives a value where a condition holds, else what is left out.
func only(when bool, value any) any {
	if when {
		return value
	}
	return nil
}

// document writes an object as YAML.
func document(o object) string {
	var b strings.Builder
	b.WriteString("---\n")
	writeObject(&b, o, "", "")
	return b.String()
}

// writeObject writes fields at an indent; first is what stands before the first of
// them, where the line has begun already.
func writeObject(b *strings.Builder, o object, indent, first string) {
	lead := indent
	if first != "" {
		lead = first
	}
	for _, f := range o {
		if f.key == "#" {
			at := indent
			if lead != indent {
				at = strings.TrimSuffix(indent, "  ") // of the whole element
			}
			for line := range strings.Lines(f.value.(string)) {
				fmt.Fprintf(b, "%s# %s\n", at, strings.TrimSpace(line))
			}
			continue
		}
		if f.value == nil {
			continue
		}
		b.WriteString(lead + scalar(f.key) + ":")
		lead = indent
		writeValue(b, f.value, indent)
	}
}

func writeValue(b *strings.Builder, v any, indent string) {
	switch v := v.(type) {
	case object:
		if !v.any() {
			b.WriteString(" {}\n")
			return
		}
		b.WriteString("\n")
		writeObject(b, v, indent+"  ", "")
	case []string:
		b.WriteString(" [" + strings.Join(scalars(v), ", ") + "]\n")
	case list:
		if len(v) == 0 {
			b.WriteString(" []\n")
			return
		}
		b.WriteString("\n")
		for _, e := range v {
			writeElement(b, e, indent)
		}
	default:
		b.WriteString(" " + scalar(v) + "\n")
	}
}

func writeElement(b *strings.Builder, e any, indent string) {
	if o, ok := e.(object); ok {
		writeObject(b, o, indent+"  ", indent+"- ")
		return
	}
	b.WriteString(indent + "- " + scalar(e) + "\n")
}

func (o object) any() bool {
	for _, f := range o {
		if f.key != "#" && f.value != nil {
			return true
		}
	}
	return false
}

func scalars(s []string) []string {
	out := make([]string, len(s))
	for i := range s {
		out[i] = scalar(s[i])
	}
	return out
}

// plain is what means itself in YAML without quotes, of whatever version.
var plain = regexp.MustCompile(`^[A-Za-z/][A-Za-z0-9_./-]*$`)

// words that YAML reads as something else than text.
var words = map[string]bool{
	"true": true, "false": true, "yes": true, "no": true, "on": true, "off": true, "null": true, "y": true, "n": true,
}

func scalar(v any) string {
	switch v := v.(type) {
	case bool:
		return strconv.FormatBool(v)
	case int:
		return strconv.Itoa(v)
	case string:
		if plain.MatchString(v) && !words[strings.ToLower(v)] {
			return v
		}
		b, _ := json.Marshal(v) // a string can always be written, and JSON is YAML
		return string(b)
	default:
		return fmt.Sprintf("!!invalid %T", v)
	}
}

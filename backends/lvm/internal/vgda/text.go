package vgda

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// section is one block of lvm's text: of values (string, int64, []any) and sections.
type section map[string]any

// parse reads the text of a VG's metadata: "name = value", "name { ... }", arrays in
// brackets, comments from # to the end of a line.
func parse(text string) (section, error) {
	p := &parser{s: text}
	all := section{}
	if err := p.body(all, false, 0); err != nil {
		return nil, fmt.Errorf("metadata at byte %d: %w", p.at, err)
	}
	return all, nil
}

type parser struct {
	s  string
	at int
}

var (
	errEnd    = errors.New("it ends too soon")
	errSyntax = errors.New("it cannot be read")
)

const maxDepth = 8

// skip goes over white space and comments; false: nothing is left.
func (p *parser) skip() bool {
	for p.at < len(p.s) {
		switch p.s[p.at] {
		case ' ', '\t', '\n', '\r', 0:
			p.at++
		case '#':
			i := strings.IndexByte(p.s[p.at:], '\n')
			if i < 0 {
				p.at = len(p.s)
				return false
			}
			p.at += i
		default:
			return true
		}
	}
	return false
}

func (p *parser) body(into section, inner bool, depth int) error {
	for {
		if !p.skip() {
			if inner {
				return errEnd
			}
			return nil
		}
		if p.s[p.at] == '}' {
			p.at++
			if !inner {
				return errSyntax
			}
			return nil
		}
		name := p.word()
		if name == "" || !p.skip() {
			return errSyntax
		}
		if _, twice := into[name]; twice {
			return fmt.Errorf("%w: %s is there twice", errSyntax, name)
		}
		value, err := p.entry(depth)
		if err != nil {
			return err
		}
		into[name] = value
	}
}

// entry is what follows a name.
func (p *parser) entry(depth int) (any, error) {
	c := p.s[p.at]
	p.at++
	switch {
	case c == '{' && depth < maxDepth:
		sub := section{}
		return sub, p.body(sub, true, depth+1)
	case c == '=':
		return p.value()
	}
	return nil, errSyntax
}

func (p *parser) word() string {
	start := p.at
	for p.at < len(p.s) && !strings.ContainsRune(" \t\r\n={}[],\"#\x00", rune(p.s[p.at])) {
		p.at++
	}
	return p.s[start:p.at]
}

func (p *parser) value() (any, error) {
	if !p.skip() {
		return nil, errEnd
	}
	switch p.s[p.at] {
	case '"':
		return p.quoted()
	case '[':
		p.at++
		return p.array()
	}
	w := p.word()
	if n, err := strconv.ParseInt(w, 10, 64); err == nil {
		return n, nil
	}
	if w == "" {
		return nil, errSyntax
	}
	return w, nil // a float, which nobody here wants
}

func (p *parser) quoted() (string, error) {
	p.at++
	var b strings.Builder
	for p.at < len(p.s) {
		c := p.s[p.at]
		p.at++
		switch {
		case c == '"':
			return b.String(), nil
		case c == '\\' && p.at < len(p.s):
			c = p.s[p.at]
			p.at++
		}
		b.WriteByte(c)
	}
	return "", errEnd
}

func (p *parser) array() ([]any, error) {
	list := []any{}
	for {
		if !p.skip() {
			return nil, errEnd
		}
		switch p.s[p.at] {
		case ']':
			p.at++
			return list, nil
		case ',':
			p.at++
			continue
		}
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
}

// fields takes values out of a section and keeps the first failure.
type fields struct {
	s   section
	err error
}

func (f *fields) text(key string) string {
	v, ok := f.s[key].(string)
	f.need(ok, key)
	return v
}

func (f *fields) int(key string) int64 {
	v, ok := f.s[key].(int64)
	f.need(ok, key)
	return v
}

// maybe is a text that may be missing.
func (f *fields) maybe(key string) string {
	v, _ := f.s[key].(string)
	return v
}

// list of texts; none when it is missing.
func (f *fields) list(key string) (texts []string) {
	a, _ := f.s[key].([]any)
	for _, v := range a {
		t, ok := v.(string)
		f.need(ok, key)
		texts = append(texts, t)
	}
	return texts
}

func (f *fields) need(ok bool, key string) {
	if !ok && f.err == nil {
		f.err = fmt.Errorf("%w: no %s", errSyntax, key)
	}
}

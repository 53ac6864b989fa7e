package mnt

// SplitOptions cuts mount flags at the commas outside of double quotes into single
// words, as [ParseOptions] reads them.
func SplitOptions(flags []string) ([]string, error) {
	var words []string
	for _, f := range flags {
		w, err := split(f)
		if err != nil {
			return nil, err
		}
		words = append(words, w...)
	}
	return words, nil
}

// Package settings is a configuration as a struct: its keys by the yaml tags of its fields, filled in
// from a file and from the environment, and printed without its secrets.
//
// Everything walks over the fields by reflection, so that a key is declared once, in the struct. The tag
// secret:"true" marks a value that is a secret, secret:"url" a URL, or a list of them, that may hold one;
// choice:"authentication:token" marks one of several ways, of which only one may be used.
// What is wrong is collected and told at once, each at the place where a person can mend it.
//
//   - fields.go: the walk over the keys, the parsing of one value, and the nearest known name.
//   - load.go: the search for the file, and what is known of where a key was set.
//   - file.go: the YAML file.
//   - env.go: the environment variables.
//   - choice.go: settings that exclude each other.
//   - problem.go: what is wrong, as an error.
//   - check.go: what must hold for one value, for files and for secrets in them.
//   - show.go: printing and redaction.
package settings

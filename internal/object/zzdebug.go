package object

// ZZ is temporary.
var ZZ func(string, ...any)

func zz(f string, a ...any) {
	if ZZ != nil {
		ZZ(f, a...)
	}
}

package wire

import (
	"reflect"
	"strings"

	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// FieldName is the name on the wire of a field as the model calls it: a reference such as
// "bridge" is "bridge_id" here.
func FieldName(kind model.Kind, field string) string {
	t := reflect.TypeOf(New(kind)).Elem()
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); name == field+"_id" {
			return name
		}
	}
	return field
}

"""Attribution methods, one file per family; `registry.METHODS` names them all."""

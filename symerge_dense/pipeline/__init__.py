"""The order of work: from a config to experts, one merged model, its table and its pictures."""

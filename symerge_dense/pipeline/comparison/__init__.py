"""Every merging method on the same experts, data and metrics: one table with what each costs."""

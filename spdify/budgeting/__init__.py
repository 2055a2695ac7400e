"""Budgets: which exact form each site gets, so that all of them together cost no more than is allowed."""

from spdify.budgeting.amounts import Wish, read_wishes
from spdify.budgeting.planning import BudgetSettings, plan_within

__all__ = ["BudgetSettings", "Wish", "plan_within", "read_wishes"]
